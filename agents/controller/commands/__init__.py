"""What people ask for, a module per noun: authorise, decide, store with event and audit, announce."""
