from django.apps import AppConfig


class PackagesConfig(AppConfig):
    name = "tests.packages"
    label = "packages"

    def ready(self):
        from actstream import registry

        registry.register(self.get_model("Place"))
        registry.register("auth.User")
