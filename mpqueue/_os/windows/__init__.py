"""The forms for Windows of facilities that differ there. Imported on Windows only, by the modules of `mpqueue._os`."""
