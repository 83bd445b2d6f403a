"""Records to text, figures and pages."""
