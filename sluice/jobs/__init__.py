"""Jobs: work that outlives a request. PostgreSQL says what is to be done and who may do it; a message only wakes."""
