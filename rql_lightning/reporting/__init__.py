"""What people look at: tables, figures and videos."""
