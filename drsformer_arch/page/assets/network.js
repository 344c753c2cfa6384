"use strict";
// A worker that runs the network: planes (1, 3, H, W) of RGB in [0, 1] in, the same out, not clamped.

let ort = null;
let session = null;

async function start({ runtime, wasm, model, threads }) {
  const url = URL.createObjectURL(new Blob([runtime], { type: "text/javascript" }));
  ort = await import(url);
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmBinary = await wasm.arrayBuffer();
  session = await ort.InferenceSession.create(new Uint8Array(await model.arrayBuffer()), {
    executionProviders: ["wasm"],
    logSeverityLevel: 4, // what is fatal; errors are raised
  });
}

async function run({ planes, shape }) {
  const { derained } = await session.run({ rainy: new ort.Tensor("float32", planes, shape) });
  return derained.data;
}

self.onmessage = async ({ data }) => {
  try {
    if (data.model) {
      await start(data);
      postMessage({});
    } else {
      const planes = await run(data);
      postMessage({ planes }, [planes.buffer]);
    }
  } catch (error) {
    // Numbers are what WASM throws where it cannot say more: it had no memory to.
    postMessage({ error: typeof error === "number" ? "out of memory" : String(error?.message ?? error) });
  }
};
