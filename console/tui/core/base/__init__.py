"""What every screen needs: filters, sorting, tables, the connection, the session."""
