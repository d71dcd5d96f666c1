"""Files and folders of a user, and indexes of other libraries, brought into an index."""
