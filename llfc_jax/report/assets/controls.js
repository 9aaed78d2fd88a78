// Elements and labelled controls.

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (value === true) made.setAttribute(key, "");
    else if (value !== null && value !== false) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Browsers that restore a form on reload would show choices that are not drawn.
const FRESH = { autocomplete: "off" };

function choice(label, options, start, act) {
  const made = options.map((text, i) =>
    element("option", { value: i, selected: i === start }, text),
  );
  const select = element("select", FRESH, ...made);
  select.addEventListener("change", () => act(Number(select.value)));
  return element("label", {}, `${label} `, select);
}

function check(label, checked, act) {
  const box = element("input", { type: "checkbox", checked, ...FRESH });
  box.addEventListener("change", () => act(box.checked));
  return element("label", {}, box, ` ${label}`);
}

function slider(label, values, start, act) {
  const range = { type: "range", min: 0, max: values.length - 1, step: 1, value: start };
  const input = element("input", { ...range, ...FRESH });
  const output = element("output");
  const say = (words) => {
    output.textContent = words;
    input.setAttribute("aria-valuetext", words);
  };
  say(show(values[start]));
  input.addEventListener("input", () => {
    const value = values[Number(input.value)];
    say(show(value));
    act(value);
  });
  return element("label", {}, `${label} `, input, " ", output);
}
