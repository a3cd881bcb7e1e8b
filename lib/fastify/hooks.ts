// Runs hooks of a route where Fastify would not.

export type Hook = (...args: any[]) => unknown

/**
 * Runs hooks one after the other, whether they take a callback or return a promise. Their errors are dropped, since nothing could
 * handle them.
 *
 * @param args the arguments of each hook, without the callback
 */
export function runHooks (hooks: Hook[], ...args: unknown[]): void {
  const left = hooks.values()
  const next = (): void => {
    const hook = left.next().value
    if (hook === undefined) return
    try {
      const result = hook(...args, next)
      if (isPromise(result)) result.then(next, next)
    } catch {
      next()
    }
  }
  next()
}

export function isPromise (value: unknown): value is PromiseLike<unknown> {
  return typeof (value as PromiseLike<unknown> | null | undefined)?.then === 'function'
}
