// Runtimes other than Node, whose http servers read and write connections in code of their own.

/** @returns its name and version; null on Node */
export function otherRuntime (versions: Readonly<Record<string, string | undefined>> = process.versions): string | null {
  const { bun, deno } = versions
  if (bun !== undefined) return `Bun ${bun}`
  return deno === undefined ? null : `Deno ${deno}`
}
