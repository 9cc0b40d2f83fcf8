"""A first look over a tree: which parts can matter, so that the rest need not be interpreted."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable

from pytest_loraperf.order.calls import (
    BY_NAME,
    LOADERS,
    MAIN_COMPONENTS,
    PEFT_MODELS,
    QUANTIZATION_CONFIGS,
    SHARERS,
    WIDE_DTYPES,
    WORDS,
)
from pytest_loraperf.order.lint.loops import feeds_operations
from pytest_loraperf.order.lint.nodes import WORD_OF, bound, called_name, children, walk
from pytest_loraperf.order.lint.passing import CARRIERS, Passing

_FREQUENT = frozenset({"getattr", "setattr", "partial", "update", "append", "extend", "exit", "_exit", "quit"})
"""Calls that matter only next to others."""
_CALLS = (
    frozenset(name for name, _ in BY_NAME if name != "to")
    | LOADERS
    | SHARERS
    | QUANTIZATION_CONFIGS
    | {"ModelConfig", "load_models", "ModelManager", "load"}
)
_NAME_LENGTH = 80
_BY_ITS_NAME = "getattr(…)()"
"""What stands for the name of a method that is called by its name: ``getattr(pipe, "fuse_lora")()``."""
_PATTERNS = ("re", "regex")
AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.ClassDef, ast.Lambda)
_BINDINGS = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr, ast.Delete, ast.Import, ast.ImportFrom)
_LEAVING = (ast.Return, ast.Yield, ast.Break, ast.Continue)
_IN_PLACE = (ast.Raise, ast.Global, ast.Nonlocal, *_SCOPES)
_MET = frozenset({ast.Call, *CARRIERS, *_BINDINGS, *_LEAVING, *_IN_PLACE})
_ALIASING = (
    ast.Name,
    ast.Attribute,
    ast.IfExp,
    ast.BoolOp,
    ast.Tuple,
    ast.List,
    ast.Dict,
    ast.Subscript,
    ast.NamedExpr,
    ast.Await,
)


class Survey:
    """What can matter in a tree.

    ``hot`` are the nodes in which a call that matters stands, directly or through the file's own functions and
    classes. ``stirring`` are the statements that decide what those calls get, or whether they are reached.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.hot: set[ast.AST] = set()
        self.stirring: set[ast.AST] = set()
        self.functions: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
        self.classes: list[ast.ClassDef] = []
        self.parents: dict[ast.AST, ast.AST] = {}
        self.passing = Passing()
        self._calls: dict[str, list[ast.AST]] = defaultdict(list)
        self._bindings: dict[str, list[ast.AST]] = defaultdict(list)
        self._returns: dict[str, list[ast.Return | ast.Yield]] = defaultdict(list)
        self._aliases: dict[str, list[str]] = defaultdict(list)
        self._feeding: dict[ast.AST, bool] = {}
        self._inner: dict[ast.AST | None, list[AnyFunction]] = defaultdict(list)
        self._setting: dict[ast.AST, bool] = {}
        self._frequent: list[ast.Call] = []
        self._casts: list[ast.Call] = []
        self._words: set[object] = set()
        names = self._walk(tree)
        if any(isinstance(word, str) and word.startswith("float8") for word in self._words):
            self._calls["quantize_"] += self._casts
        names.add(_BY_ITS_NAME)
        for name in [
            each for each in (*self._calls, *self._aliases) if each in names or each.startswith(PEFT_MODELS)
        ]:
            self._heat(name)
        self._heat_indirect(names)
        self._follow(self._wanted())

    def inner_functions(self, function: AnyFunction) -> list[AnyFunction]:
        """Return the functions with calls that matter that a function defines itself."""
        if not self._inner:
            self._inner[None] = []
            for each in self.functions:
                if each in self.hot:
                    self._inner[self._scope_of(each)].append(each)
        return self._inner.get(function, [])

    def sets_up(self, function: ast.AST) -> bool:
        """Return whether a function may give something outside it a value: a global, an attribute or an item."""
        if function not in self._setting:
            self._setting[function] = any(
                isinstance(each, ast.Global | ast.Nonlocal)
                or (isinstance(each, ast.Subscript | ast.Attribute) and isinstance(each.ctx, ast.Store))
                for each in walk(function)
            )
        return self._setting[function]

    def _scope_of(self, node: ast.AST) -> ast.AST | None:
        """Return the function or class that a node stands in."""
        found = self.parents.get(node)
        while found is not None and not isinstance(found, _SCOPES):
            found = self.parents.get(found)
        return found

    @property
    def is_worthwhile(self) -> bool:
        """Whether a name that every finding needs stands in the code, rather than in comments and docstrings."""
        short = (each for each in self._words if isinstance(each, str) and len(each) < _NAME_LENGTH)
        return any(word in each for each in short for word in WORDS)

    def matters(self, node: ast.AST) -> bool:
        """Return whether this statement needs to be interpreted."""
        return node in self.hot or node in self.stirring

    def feeds_operations(self, loop: ast.For | ast.AsyncFor) -> bool:
        """Return whether a call that matters in the loop's body gets something that its variable decides."""
        if loop not in self._feeding:
            self._feeding[loop] = loop in self.hot and feeds_operations(loop, self.hot)
        return self._feeding[loop]

    def _walk(self, tree: ast.Module) -> set[str]:
        """Meet every node once; return the names of the calls that matter."""
        names = set(_CALLS)
        nodes: list[ast.AST] = [tree]
        while nodes:
            node = nodes.pop()
            inside = children(node)
            if inside:
                self.parents.update(dict.fromkeys(inside, node))
                nodes += inside
            kind = type(node)
            word = WORD_OF.get(kind)
            if word is not None:
                self._words.add(getattr(node, word))
            elif kind not in _MET:
                continue
            elif isinstance(node, ast.Call):
                self._meet_call(node)
            elif isinstance(node, CARRIERS):
                self.passing.meet(node)
            elif isinstance(node, _BINDINGS):
                self._meet_binding(node, names)
            else:
                self._meet_statement(node)
        return names

    def _meet_statement(self, node: ast.AST) -> None:
        if isinstance(node, _LEAVING):
            self._stir(node)
            if isinstance(node, ast.Return | ast.Yield):
                self._returns[self._function_of(node)].append(node)
                self.passing.carry(filter(None, [node.value]))
        else:
            self._meet_definition(node)

    def _meet_binding(self, node: ast.AST, names: set[str]) -> None:
        for name in bound(node):
            self._bindings[name].append(node)
        if isinstance(node, ast.Assign):
            self._meet_alias(node)
            if isinstance(node.targets[0], ast.Subscript):
                self.passing.carry([node.value])
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {each.asname for each in node.names if each.asname and each.name.split(".")[-1] in names}

    def _meet_definition(self, node: ast.AST) -> None:
        self.stirring.add(node)
        if isinstance(node, _FUNCTIONS):
            self.functions.append(node)
            for decorator in node.decorator_list:
                self.passing.names.add(node.name)
                if isinstance(
                    decorator, ast.Name | ast.Attribute
                ):  # called with the function, though no call stands there
                    self._calls[decorator.id if isinstance(decorator, ast.Name) else decorator.attr].append(node)
        elif isinstance(node, ast.ClassDef):
            self.classes.append(node)

    def _meet_call(self, node: ast.Call) -> None:
        name = called_name(node)
        if isinstance(node.func, ast.Call) and called_name(node.func) == "getattr":
            name = _BY_ITS_NAME
        if name in _FREQUENT:
            self._frequent.append(node)
        passed_on = self.passing.meet_call(node, name)
        if passed_on:
            self._calls[passed_on].append(node)
        if name == "to":
            if _is_cast(node):
                self._casts.append(node)
        elif name != "compile" or not _is_pattern(node):
            self._calls[name].append(node)

    def _meet_alias(self, node: ast.Assign) -> None:
        """Remember that ``x = pipe.fuse_lora`` or ``x = partial(quantize_, …)`` gives a call another name."""
        target, value = node.targets[0], node.value
        if isinstance(value, ast.Call) and called_name(value) == "partial" and value.args:
            value = value.args[0]
        if isinstance(target, ast.Name) and isinstance(value, ast.Name | ast.Attribute):
            self._aliases[value.id if isinstance(value, ast.Name) else value.attr].append(target.id)

    def _function_of(self, node: ast.AST) -> str:
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, _FUNCTIONS):
                return node.name
        return ""

    def _stir(self, node: ast.AST) -> None:
        """Mark a statement and those around it, up to the function that it stands in."""
        while node not in self.stirring:
            self.stirring.add(node)
            if node not in self.parents:
                return
            node = self.parents[node]
            if isinstance(node, _SCOPES):
                return

    def _heat(self, name: str) -> None:
        """Mark the calls of a name, what they stand in, and the calls of the functions that they stand in."""
        waiting = [name]
        while waiting:
            name = waiting.pop()
            waiting += self._aliases.pop(name, ())
            for call in self._calls.pop(name, ()):
                node: ast.AST | None = call
                while node is not None and node not in self.hot:
                    self.hot.add(node)
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                        waiting.append(node.name)
                    elif isinstance(node, ast.Lambda) and isinstance(self.parents[node], ast.Assign):
                        waiting += bound(self.parents[node])
                    node = self.parents.get(node)

    def _heat_indirect(self, names: set[str]) -> None:
        """Mark calls of parameters, of a loop's variables and of items, where what matters is such a value."""
        values = self.passing
        hot = {each.name for each in self.functions if each in self.hot} | names
        if values.names & hot or any(each in self.hot for each in values.lambdas):
            for name in ("", *values.variables):
                self._heat(name)

    def _wanted(self) -> set[str]:
        """Return the names on which the calls that matter, and reaching them, depend."""
        found = set(MAIN_COMPONENTS)
        for node in self.hot:
            if isinstance(node, ast.Call):
                inside: Iterable[ast.AST] = (node,)
            elif isinstance(node, ast.If | ast.While | ast.IfExp):
                inside = (node.test,)
            elif isinstance(node, ast.For | ast.AsyncFor):
                inside = (node.iter,)
            elif isinstance(node, ast.Match):
                inside = (node.subject,)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                returned = (each.value for each in self._returns[node.name] if each.value is not None)
                inside = [*returned, *node.args.defaults, *filter(None, node.args.kw_defaults)]
            else:
                continue
            found.update(*map(_names, inside))
        return found

    def _follow(self, wanted: set[str]) -> None:
        """Mark what binds these names, and what binds the names that those take their values from."""
        waiting, known = list(wanted), set(wanted)
        while waiting:
            for node in self._bindings.pop(waiting.pop(), ()):
                self._stir(node)
                value = getattr(node, "value", None)
                new = self._sources(value) - known if value is not None else set()
                known |= new
                waiting += new
        for call in self._frequent:
            if known & _names(call):
                self._stir(call)

    def _sources(self, value: ast.expr) -> set[str]:
        if isinstance(value, _ALIASING):
            return _names(value)
        if isinstance(value, ast.Call):
            returned = [each.value for each in self._returns.get(called_name(value), ()) if each.value is not None]
            return _names(value).union(*map(_names, returned)) if returned else _names(value.func)
        return set()


def _is_cast(node: ast.Call) -> bool:
    """Return whether a call of ``to`` may cast to float8 or back: with a dtype, or a name that may hold one."""
    given = [*node.args, *(each.value for each in node.keywords if each.arg == "dtype")]
    return any(
        each.attr.startswith("float8") or each.attr in WIDE_DTYPES
        if isinstance(each, ast.Attribute)
        else isinstance(each, ast.Subscript) or (isinstance(each, ast.Name) and each.id != "device")
        for each in given
    )


def _is_pattern(node: ast.Call) -> bool:
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    return isinstance(owner, ast.Name) and owner.id in _PATTERNS


def _names(node: ast.AST) -> set[str]:
    """Return the names and the names of attributes in an expression."""
    return {
        each.id if isinstance(each, ast.Name) else each.attr
        for each in walk(node)
        if isinstance(each, ast.Name | ast.Attribute)
    }
