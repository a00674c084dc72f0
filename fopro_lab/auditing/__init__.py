"""Questions to the data before any model: is it sound, and what did the pipeline do to it?"""
