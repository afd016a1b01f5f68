"""What knows verse: how words sound, what rhymes, what is copied. No model in it, and no torch but in rhyme_search."""
