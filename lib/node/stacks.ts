// Errors without their stacks. Where many are made, as values, the stacks would take most of the time.

/** @returns the limit to restore; null if this process does not allow to change it */
export function hideStacks (): number | null {
  const { stackTraceLimit } = Error
  return setLimit(0) ? stackTraceLimit : null
}

export function restoreStacks (limit: number | null): void {
  if (limit !== null) setLimit(limit)
}

/** It may be frozen. */
function setLimit (limit: number): boolean {
  return Reflect.set(Error, 'stackTraceLimit', limit)
}
