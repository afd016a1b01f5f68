"""What trains and runs a model. Below it: rap/ knows verse, serve/ the web page, bench/ measurements."""
