"""Step 10, push: a blessed model becomes a new version in the serving directory."""
