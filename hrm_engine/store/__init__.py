"""File formats of HRM Lab and their readers. Torch-free: the dashboard and the command line import it freely."""
