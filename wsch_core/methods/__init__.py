"""Methods: what turns a video's frame features into a hash code."""
