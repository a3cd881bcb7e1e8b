// Is this a runtime other than Node? The http servers of those read and write connections in native code.

/** Name and version of the runtime; null on Node. */
export function otherRuntime (versions: Readonly<Record<string, string | undefined>> = process.versions): string | null {
  const { bun, deno } = versions
  if (bun !== undefined) return `Bun ${bun}`
  return deno === undefined ? null : `Deno ${deno}`
}
