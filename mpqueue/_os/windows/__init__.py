"""The forms for Windows of what differs there. Imported on Windows only, by the modules of `mpqueue._os`."""
