"""Files and folders read and cut into documents."""
