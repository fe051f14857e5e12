"""Registries apart from mmengine's, with the same methods."""

from importlib import import_module


class Registry:
    def __init__(self, name, parent=None, scope="visdet", locations=()):
        self.name, self.parent, self.scope, self.locations = name, parent, scope, locations
        self.module_dict, self.children = {}, {}
        if parent is not None:
            assert scope not in parent.children, f"scope {scope} exists"
            parent.children[scope] = self

    def register_module(self, name=None, force=False, module=None):
        if module is None:
            return lambda cls: self.register_module(name, force, cls)
        name = name or module.__name__
        if name in self.module_dict and not force:
            print(f"Warning: {name} is already registered, it will be overwritten")
        self.module_dict[name] = module
        return module

    def get(self, key):
        scope, _, name = key.partition(".")
        if not name:
            registry = self
            while registry is not None:
                if key in registry.module_dict:
                    return registry.module_dict[key]
                registry = registry.parent
            raise RuntimeError(f"Failed to get {key}")
        if scope == self.scope:
            return self.module_dict.get(name)
        import_module(f"{scope}.registry")
        root = self if self.parent is None else self.parent
        return root.module_dict.get(name) if scope == root.scope else root.children[scope].get(name)

    def build(self, config):
        arguments = dict(config)
        for location in self.locations:
            import_module(location)
        try:
            cls = self.get(arguments.pop("type"))
        except RuntimeError:
            cls = None
        if cls is None:
            raise KeyError(f"{config['type']} is not in the {self.scope}::{self.name} registry")
        return cls(**arguments)


TASK_UTILS = Registry("task util")
