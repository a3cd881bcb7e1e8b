// Runtimes other than Node. Their http servers read and write connections in native code.

/** Name and version of the runtime; null on Node. */
export function otherRuntime (versions: Readonly<Record<string, string | undefined>> = process.versions): string | null {
  const { bun, deno } = versions
  if (bun !== undefined) return `Bun ${bun}`
  return deno === undefined ? null : `Deno ${deno}`
}
