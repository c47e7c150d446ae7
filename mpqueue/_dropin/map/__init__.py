"""`mpqueue.map`, `starmap`, `amap`, `imap` and `imap_unordered`."""
