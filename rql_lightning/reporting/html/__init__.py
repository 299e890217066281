"""Reports as single HTML files: every figure, picture and video is inside, and nothing is loaded from a network."""
