"""What knows verse: sounds, rhymes, sections, copies. No model in it; only rhyme_search is handed one."""
