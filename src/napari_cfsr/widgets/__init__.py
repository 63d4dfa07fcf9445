"""The pages of the plugin: each reads its form, starts a worker and shows what comes back."""
