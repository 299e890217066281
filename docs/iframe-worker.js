// Search runs in a worker, which browsers refuse to pages that are opened from disk. There, a hidden frame takes its place.
class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    this.frame = document.createElement("iframe");
    this.frame.hidden = true;
    document.body.append(this.frame);
    const inside = this.frame.contentWindow;
    inside.document.open();
    inside.document.write(`<body><script>
      postMessage = message => parent.postMessage(message, "*");
      importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise(loaded => {
        const script = document.createElement("script");
        script.src = url;
        script.onload = loaded;
        document.body.append(script);
      })), Promise.resolve());
    <\/script><script src="${url}"><\/script></body>`);
    inside.document.close();
    this.ready = new Promise(resolve => { inside.onload = resolve; });
    addEventListener("message", event => {
      if (event.source === this.frame.contentWindow)
        this.dispatchEvent(new MessageEvent("message", {data: event.data}));
    });
  }

  postMessage(message) {
    const data = structuredClone(message);
    this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", {data})));
  }

  terminate() {
    this.frame.remove();
  }
}

if (location.protocol === "file:") window.Worker = FrameWorker;
