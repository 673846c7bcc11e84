/** What the modules of the page share. */

export const $ = (id) => document.getElementById(id);

/** Makes an element with text and children, never with markup. */
export function element(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

export const clock = (date) => date.toLocaleTimeString('en-GB', { hour12: false });

export const pretty = (value) => JSON.stringify(value, null, 2);

/** Has the tabs of a list chosen by click and by arrow keys; `choose` is told which. */
export function tabs(list, choose) {
  const all = [...list.querySelectorAll('[role="tab"]')];
  const select = (tab) => {
    for (const other of all) {
      other.setAttribute('aria-selected', String(other === tab));
      other.tabIndex = other === tab ? 0 : -1;
    }
    choose(tab);
  };
  list.addEventListener('click', ({ target }) => {
    const tab = target.closest('[role="tab"]');
    if (tab) select(tab);
  });
  list.addEventListener('keydown', ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (!step) return;
    const tab = all[(all.indexOf(document.activeElement) + step + all.length) % all.length];
    tab.focus();
    select(tab);
  });
}
