"""Contents of the screens, known without a screen: Textual is not imported here."""
