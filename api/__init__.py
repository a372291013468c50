"""The HTTP API in front of a predictor: who may ask, what may be asked, and the page to try it on."""
