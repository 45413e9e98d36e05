"""What people look at: figures and tables. The only room that imports matplotlib and pandas."""
