// What a person would see at once: words over words, words beyond the edge, words too faint to read.
(() => {
  const problems = [];
  const root = document.documentElement;
  document.querySelectorAll('details').forEach((details) => { details.open = true; });
  const width = root.clientWidth;
  if (root.scrollWidth > width + 1) problems.push(`the page is ${root.scrollWidth} wide, the window ${width}`);

  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).slice(0, 3).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      const alpha = channels(colour)[3];
      if (alpha === undefined || alpha > 0) return colour;
    }
    return 'rgb(255, 255, 255)';
  };

  const boxes = [];
  const faint = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const text = node.textContent.trim();
    const element = node.parentElement;
    if (!text || element.closest('svg, .hidden')) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const rects = [...range.getClientRects()].filter((rect) => rect.width > 1 && rect.height > 1);
    if (rects.length === 0) continue;
    if (rects.length > 3 && rects.every((rect) => rect.width < 14)) problems.push(`${text.slice(0, 40)}: letters one below the other`);
    const style = getComputedStyle(element);
    const ratio = contrast(style.color, ground(element));
    if (ratio < 4.5) faint.add(`${text.slice(0, 40)}: contrast ${ratio.toFixed(2)}`);
    if (parseFloat(style.fontSize) < 11) problems.push(`${text.slice(0, 40)}: letters of ${style.fontSize}`);
    for (const rect of rects) {
      // Ascenders and descenders of neighbouring lines may touch.
      const slack = rect.height * 0.2;
      const box = { text, left: rect.left + 1, right: rect.right - 1, top: rect.top + slack, bottom: rect.bottom - slack };
      if (box.right > width + 1 || box.left < -1) problems.push(`${text.slice(0, 40)}: beyond the edge`);
      boxes.push(box);
    }
  }
  boxes.sort((a, b) => a.top - b.top);
  boxes.forEach((one, at) => {
    for (let next = at + 1; next < boxes.length && boxes[next].top < one.bottom; next += 1) {
      const other = boxes[next];
      if (one.left < other.right && other.left < one.right) {
        problems.push(`${one.text.slice(0, 40)} | lies over | ${other.text.slice(0, 40)}`);
      }
    }
  });
  // Marks that carry meaning must stand out from the ground of a lane; usual states are faint on purpose.
  const token = (name) => {
    const probe = document.createElement('i');
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    const colour = getComputedStyle(probe).color;
    probe.remove();
    return colour;
  };
  for (const name of ['fault', 'operator', 'spilling', 'bitmap', 'resync', 'down', 'fenced', 'writes', 'lag-line', 'bad', 'warn', 'before']) {
    const ratio = contrast(token(name), token('wash'));
    if (ratio < 3) faint.add(`mark ${name}: contrast ${ratio.toFixed(2)}`);
  }
  return JSON.stringify({ problems: [...problems, ...faint].slice(0, 20), words: document.body.innerText, boxes: boxes.length });
})()
