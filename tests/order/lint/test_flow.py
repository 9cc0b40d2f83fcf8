"""Flow of models through a file, in short sources: who is who, and what happens on which path."""

from __future__ import annotations

import pytest

from pytest_loraperf.order.lint.run import lint_source

SOURCES = [
    pytest.param(
        "try:\n"
        "    from torchao.quantization import quantize_\n"
        "except ImportError:\n"
        "    quantize_ = None\n"
        "if quantize_ is not None:\n"
        "    quantize_(pipe.transformer, C())\n"
        "pipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="importerror",
    ),
    pytest.param(
        "class A:\n"
        "    def __init__(self):\n"
        "        self.pipe = None\n"
        "    def get(self):\n"
        "        if self.pipe is None:\n"
        "            self.pipe = F.from_pretrained('a')\n"
        "            quantize_(self.pipe.transformer, C())\n"
        "        return self.pipe\n"
        "    def run(self):\n"
        "        self.get().load_lora_weights('a')\n",
        ["LRP102"],
        id="lazy",
    ),
    pytest.param(
        "def outer():\n"
        "    pipe = F.from_pretrained('x')\n"
        "    def q():\n"
        "        quantize_(pipe.transformer, C())\n"
        "    def l():\n"
        "        pipe.load_lora_weights('a')\n"
        "    q()\n"
        "    l()\n"
        "outer()\n",
        ["LRP102"],
        id="closure",
    ),
    pytest.param(
        "def outer():\n"
        "    pipe = F.from_pretrained('x')\n"
        "    def q():\n"
        "        quantize_(pipe.transformer, C())\n"
        "    def l():\n"
        "        pipe.load_lora_weights('a')\n"
        "        pipe.fuse_lora()\n"
        "    l()\n"
        "    q()\n"
        "outer()\n",
        [],
        id="closure ok",
    ),
    pytest.param(
        "pipe = F.from_pretrained('x', torch_dtype=torch.float8_e4m3fn)\n"
        "pipe.load_lora_weights('a')\n"
        "pipe.fuse_lora()\n",
        ["LRP102", "LRP101"],
        id="dtype load",
    ),
    pytest.param(
        "pipe.enable_vram_management(enable_dit_fp8_computation=True)\n"
        "pipe.load_lora(module=pipe.dit, lora_config='a')\n",
        ["LRP102"],
        id="kw module",
    ),
    pytest.param(
        "pipe.enable_vram_management(enable_dit_fp8_computation=True)\npipe.load_lora(pipe.dit, state_dict=sd)\n",
        ["LRP102"],
        id="kw module 2",
    ),
    pytest.param(
        "from functools import partial\n"
        "f = partial(pipe.enable_vram_management, enable_dit_fp8_computation=True)\n"
        "f()\n"
        "pipe.load_lora(pipe.dit, 'a')\n",
        ["LRP102"],
        id="partial bound",
    ),
    pytest.param(
        "cfgs = []\n"
        "cfgs.append(ModelConfig('dit', offload_dtype=torch.float8_e4m3fn))\n"
        "pipe = P.from_pretrained(model_configs=cfgs)\n"
        "pipe.load_lora(pipe.dit, 'a')\n",
        ["LRP101"],
        id="append",
    ),
    pytest.param(
        "def q(m):\n    quantize_(m, C())\nargs = [pipe.transformer]\nq(*args)\npipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="starargs",
    ),
    pytest.param(
        "DTYPE = torch.float8_e4m3fn\n"
        "pipe.transformer = pipe.transformer.to(DTYPE)\n"
        "pipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="fp8 literal",
    ),
    pytest.param(
        "d = getattr(torch, 'float8_e4m3fn')\npipe.transformer.to(dtype=d)\npipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="getattr fp8",
    ),
    pytest.param(
        "from contextlib import contextmanager\n"
        "@contextmanager\n"
        "def p():\n"
        "    pipe = F.from_pretrained('x', quantization_config=TorchAoConfig('int8wo'))\n"
        "    yield pipe\n"
        "with p() as pipe:\n"
        "    pipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="ctx",
    ),
    pytest.param(
        "pipe = F.from_pretrained('x', quantization_config=TorchAoConfig('int8wo')).to('cuda')\n"
        "pipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="method chain",
    ),
    pytest.param(
        "def mk():\n"
        "    pipe = F.from_pretrained('x')\n"
        "    quantize_(pipe.transformer, C())\n"
        "    return pipe, 3\n"
        "pipe, n = mk()\n"
        "pipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="tuple return",
    ),
    pytest.param(
        "m = {'p': F.from_pretrained('x')}\nquantize_(m['p'].transformer, C())\nm['p'].load_lora_weights('a')\n",
        ["LRP102"],
        id="dict of models",
    ),
    pytest.param(
        "pipe = None\n"
        "def init():\n"
        "    global pipe\n"
        "    pipe = F.from_pretrained('x')\n"
        "    quantize_(pipe.transformer, C())\n"
        "def go():\n"
        "    pipe.load_lora_weights('a')\n"
        "init()\n"
        "go()\n",
        ["LRP102"],
        id="global set",
    ),
    pytest.param(
        "while True:\n    quantize_(pipe.transformer, C())\n    break\npipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="while break",
    ),
    pytest.param(
        "quantize_(pipe.transformer, C())\ndel pipe\npipe = F.from_pretrained('x')\npipe.load_lora_weights('a')\n",
        [],
        id="del",
    ),
    pytest.param(
        "import copy\nb = copy.deepcopy(pipe)\nquantize_(pipe.transformer, C())\nb.load_lora_weights('a')\n",
        [],
        id="deepcopy",
    ),
    pytest.param(
        "import copy\nquantize_(pipe.transformer, C())\nb = copy.deepcopy(pipe)\nb.load_lora_weights('a')\n",
        ["LRP102"],
        id="deepcopy after",
    ),
    pytest.param(
        "pipe.transformer = replace_linear(pipe.transformer)\n"
        "quantize_(pipe.transformer, C())\n"
        "pipe.transformer = wrap(pipe.transformer)\n"
        "pipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="wrapped",
    ),
    pytest.param(
        "import optimum.quanto as oq\n"
        "oq.quantize(pipe.transformer, weights=oq.qfloat8)\n"
        "pipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="quanto aliased",
    ),
    pytest.param(
        "import torchao\ntorchao.quantization.quantize_(pipe.transformer, C())\npipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="torchao module",
    ),
    pytest.param(
        "def quantize(x):\n    return x\nquantize(pipe.transformer)\npipe.load_lora_weights('a')\n",
        [],
        id="own quantize local",
    ),
    pytest.param(
        "m = AutoModel.from_pretrained('x', load_in_8bit=True)\n"
        "m = PeftModel.from_pretrained(m, 'a')\n"
        "m = m.merge_and_unload()\n",
        ["LRP102", "LRP101"],
        id="merge 8bit",
    ),
    pytest.param(
        "pipe.text_encoder.to(torch.float8_e4m3fn)\npipe.load_lora_weights('a')\n",
        [],
        id="te only",
    ),
    pytest.param(
        "async def f():\n"
        "    async for x in y():\n"
        "        quantize_(pipe.transformer, C())\n"
        "        pipe.load_lora_weights(x)\n",
        ["LRP102"],
        id="async for",
    ),
    pytest.param(
        "try:\n"
        "    pipe.load_lora_weights('a')\n"
        "    pipe.fuse_lora()\n"
        "finally:\n"
        "    quantize_(pipe.transformer, C())\n",
        [],
        id="finally ok",
    ),
    pytest.param(
        "try:\n"
        "    pipe.transformer = torch.compile(pipe.transformer)\n"
        "except Exception:\n"
        "    raise\n"
        "else:\n"
        "    pipe.load_lora_weights('a')\n",
        ["LRP105"],
        id="else try",
    ),
    pytest.param(
        "def b(fp8=False):\n"
        "    pipe = F.from_pretrained('x')\n"
        "    if fp8:\n"
        "        quantize_(pipe.transformer, C())\n"
        "    pipe.load_lora_weights('a')\n"
        "b()\n",
        [],
        id="flag default",
    ),
    pytest.param(
        "def b(fp8=True):\n"
        "    pipe = F.from_pretrained('x')\n"
        "    if fp8:\n"
        "        quantize_(pipe.transformer, C())\n"
        "    pipe.load_lora_weights('a')\n"
        "b()\n",
        ["LRP102"],
        id="flag default true",
    ),
    pytest.param(
        "def b(pipe, fp8=False):\n"
        "    if fp8:\n"
        "        quantize_(pipe.transformer, C())\n"
        "    pipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="uncalled flag",
    ),
    pytest.param(
        "pipe.transformer = torch.compile(pipe.transformer)\n"
        "pipe.enable_lora_hotswap(target_rank=8)\n"
        "pipe.load_lora_weights('a')\n",
        [],
        id="compile opts",
    ),
    pytest.param(
        "pipe.enable_model_cpu_offload()\npipe.load_lora_weights('a')\npipe.fuse_lora()\n",
        ["LRP106"],
        id="xl",
    ),
    pytest.param(
        "model = get_peft_model(model, LoraConfig())\nmodel = accelerator.prepare(model)\nquantize_(model, C())\n",
        ["LRP107"],
        id="Accelerator",
    ),
    pytest.param(
        "pipe.load_lora_weights('a', adapter_name='x')\n"
        "pipe.fuse_lora(adapter_names=['x'])\n"
        "pipe.unload_lora_weights()\n"
        "quantize_(pipe.transformer, C())\n",
        [],
        id="set_adapters",
    ),
    pytest.param(
        "pipe = P.from_pretrained(model_configs=[ModelConfig('a', vram_config=dict(onload_dtype=torch.float8_e4m3fn))])\n"
        "pipe.load_lora(pipe.dit,'a')\n",
        ["LRP102"],
        id="dsq vram",
    ),
    pytest.param(
        "pipe = P.from_pretrained(model_configs=[ModelConfig('a', quantize_config=QuantizeConfig(method='x'))])\n"
        "pipe.load_lora(pipe.dit,'a')\n",
        ["LRP102"],
        id="quantize_config",
    ),
    pytest.param(
        "pipe = P.from_pretrained(model_configs=[ModelConfig('a')], quantize_config=QuantizeConfig(method='x'))\n"
        "pipe.load_lora(pipe.dit,'a')\n",
        ["LRP102"],
        id="QuantizeConfig on pretrained",
    ),
    pytest.param(
        "[m.load_lora_weights('a') for m in [pipe]]\nquantize_(pipe.transformer, C())\n",
        ["LRP107"],
        id="comp list",
    ),
    pytest.param(
        "pipe.load_lora_weights('a')\n"
        "pipe.fuse_lora()\n"
        "pipe.enable_model_cpu_offload()\n"
        "pipe.load_lora_weights('b')\n",
        [],
        id="fuse-then-offload-then-fuse",
    ),
    pytest.param(
        "pipe.load_lora_weights('a')\npipe.transformer.compile()\npipe.load_lora_weights('b', adapter_name='b')\n",
        ["LRP105"],
        id="second adapter",
    ),
    pytest.param(
        "class A:\n"
        "    pipe = F.from_pretrained('x', quantization_config=TorchAoConfig('int8wo'))\n"
        "    @classmethod\n"
        "    def go(cls):\n"
        "        cls.pipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="class var",
    ),
    pytest.param(
        "self_ = App()\n"
        "app.model.pipe = F.from_pretrained('x')\n"
        "quantize_(app.model.pipe.transformer, C())\n"
        "app.model.pipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="nested attr",
    ),
    pytest.param(
        "import pytest\n"
        "@pytest.fixture\n"
        "def pipe():\n"
        "    p = F.from_pretrained('x')\n"
        "    quantize_(p.transformer, C())\n"
        "    return p\n"
        "def test_a(pipe):\n"
        "    pipe.load_lora_weights('a')\n",
        ["LRP102"],
        id="pytest fixture",
    ),
    pytest.param(
        "def main():\n"
        "    quantize_(pipe.transformer, C())\n"
        "    pipe.load_lora_weights('a')\n"
        "if __name__ == '__main__':\n"
        "    main()\n",
        ["LRP102"],
        id="main guard",
    ),
    pytest.param(
        "def load_pipe(quantize):\n"
        "    pipe = F.from_pretrained('x')\n"
        "    return quantize_model(pipe) if quantize else pipe\n"
        "def quantize_model(p):\n"
        "    quantize_(p.transformer, C())\n"
        "    return p\n"
        "load_pipe(True).load_lora_weights('a')\n",
        ["LRP102"],
        id="pred",
    ),
]


@pytest.mark.parametrize(("source", "codes"), SOURCES)
def test_flow(source: str, codes: list[str]) -> None:
    assert sorted(each.code for each in lint_source(source, "app.py")) == sorted(codes)
