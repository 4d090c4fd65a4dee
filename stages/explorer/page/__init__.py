"""The page of the explorer, in Gradio: its layout, its look (page.css) and its behaviour (page.js)."""
