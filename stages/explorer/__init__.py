"""The explorer: trained models to touch in a browser. All but `page` are functions of arrays, without Gradio."""
