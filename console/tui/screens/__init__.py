"""One file a screen. A screen lays out panes and answers actions; it works nothing out itself."""
