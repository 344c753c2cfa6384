// Search runs in a worker, which browsers refuse to pages opened by double-click (file://). There a hidden frame, which
// loads the same script, takes the worker's place; mkdocs-material asks for the name IFrameWorker.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.documentElement.append(frame);
      this.frame = frame.contentWindow;
      this.waiting = [];
      window.addEventListener("message", (event) => {
        if (event.source === this.frame) this.dispatchEvent(new MessageEvent("message", { data: event.data }));
      });
      const inside = frame.contentDocument;
      inside.open();
      inside.write("<script>var importScripts = (...urls) => urls.reduce((done, url) => done.then(() =>" +
        "new Promise((resolve, reject) => { const script = document.createElement('script'); script.src = url;" +
        "script.onload = resolve; script.onerror = reject; document.head.append(script); })), Promise.resolve());" +
        "var postMessage = (data) => parent.dispatchEvent(new MessageEvent('message', { data, source: window }));" +
        "<\/script>");
      inside.close();
      const script = inside.createElement("script");
      script.src = new URL(url, location.href).href;
      script.onload = () => {
        const waiting = this.waiting;
        this.waiting = undefined;
        waiting.forEach((data) => this.postMessage(data));
      };
      inside.head.append(script);
    }
    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.frame.dispatchEvent(new MessageEvent("message", { data }));
    }
    terminate() {}
  };
  window.Worker = window.IFrameWorker;
}
