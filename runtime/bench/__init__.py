"""How fast is a model here, and may the figure be believed?"""
