"""Records that nothing right can be learnt from: repeated ids, pairs whose answers do not differ."""
