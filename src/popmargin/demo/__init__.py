"""The controlled-sentiment demo: its prompts, its data and the script that made them."""

from popmargin.demo.folder import demo_data_path as demo_data_path
from popmargin.demo.folder import demo_study_path as demo_study_path
from popmargin.demo.folder import embedded_data as embedded_data
