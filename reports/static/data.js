// Data arrives by script tags, the only way that works from a file: each data file calls
// g4eval.receive(name, value). Long texts come as base64 of zstd frames; fzstd unpacks them.
"use strict";
const g4eval = (() => {
  const values = new Map(); // name -> promise
  const resolvers = new Map();

  // Trusted Types: the one place that turns a string into a script's address, and what it allows.
  const rules = {
    createScriptURL(path) {
      if (!/^data\/[\w.\-/]+\.js(\?\d+)?$/.test(path) || path.includes("..")) {
        throw new TypeError(`not a data file: ${path}`);
      }
      return path;
    },
  };
  const policy = window.trustedTypes ? trustedTypes.createPolicy("g4eval", rules) : rules;

  function want(name) {
    if (!values.has(name)) {
      values.set(name, new Promise((resolve) => resolvers.set(name, resolve)));
    }
    return values.get(name);
  }

  function receive(name, value) {
    want(name);
    resolvers.get(name)(value);
  }

  function load(path) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = policy.createScriptURL(path);
      script.addEventListener("load", () => resolve(script.remove()));
      script.addEventListener("error", () => reject(new Error(`${path} can't be loaded`)));
      document.head.append(script);
    });
  }

  function unpack(base64) {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    return new TextDecoder().decode(fzstd.decompress(bytes));
  }

  const shards = new Map(); // path -> promise of {sample id: texts}; the last few are kept
  function shard(folder, name) {
    const path = `${folder}/${name}.js`;
    if (!shards.has(path)) {
      shards.set(path, load(path).then(() => want(name)));
      if (shards.size > 4) {
        const oldest = shards.keys().next().value;
        shards.delete(oldest);
        values.delete(oldest.slice(folder.length + 1, -3));
      }
    }
    return shards.get(path);
  }

  // Forget a value, so that its file can be loaded again.
  function forget(name) {
    values.delete(name);
    resolvers.delete(name);
  }

  // An element; children are strings or nodes, and strings become text, never markup.
  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  return { el, forget, load, receive, shard, unpack, want };
})();
