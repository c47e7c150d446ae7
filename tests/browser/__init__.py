"""The live page in a real Chromium: what people see, press and hear."""
