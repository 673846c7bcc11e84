/**
 * Returns options over their defaults, which hold for what is undefined too. Throws where a number is expected and there
 * is none: NaN as a time would be none at all. `prefix` goes before the names in the error.
 */
export function withDefaults(defaults, options, prefix = '') {
  const defined = Object.fromEntries(Object.entries(options ?? {}).filter(([, value]) => value !== undefined));
  for (const [name, value] of Object.entries(defined)) {
    if (typeof defaults[name] !== 'number' || (typeof value === 'number' && value >= 0)) continue;
    throw new RangeError(`the option \`${prefix}${name}\` has to be a number from 0 on, and is ${String(value)}`);
  }
  return { ...defaults, ...defined };
}
