"""Files of other people, read as data: packed scripts, blobs, logs; nothing is executed."""
