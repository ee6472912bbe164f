"""The batch half of Session-Buddy Analytics: the Dagster project and the `sb` command.

The only place that imports dagster, pandas and scikit-learn, and only inside the modules that need
them: `sb record` must not wait for any of them.
"""
