// Runs hooks of a route where Fastify would not.

import { DestroyedError } from '../errors.ts'

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

/**
 * Runs onSend hooks without a payload, as Fastify does for `reply.send()`.
 *
 * @param onPayload called when a hook gives a payload
 * @returns a promise if a hook is asynchronous; null if all have run
 * @throws what a hook fails with
 */
export function runOnSend (hooks: Hook[], request: unknown, reply: unknown, onPayload: () => void): Promise<void> | null {
  const left = hooks.values()
  let isDone = false
  let failure: unknown = null
  let settle = (): void => {}
  const finish = (error: unknown): void => {
    isDone = true
    failure = error
    settle()
  }
  const next = (error?: unknown, payload?: unknown): void => {
    if (payload !== undefined && payload !== null && payload !== '') onPayload()
    const hook = error ? undefined : left.next().value
    if (hook === undefined) {
      finish(error)
      return
    }
    try {
      const result = hook(request, reply, undefined, next)
      if (isPromise(result)) result.then((payload) => { next(null, payload) }, (error) => { finish(error ?? new DestroyedError()) })
    } catch (error) {
      finish(error)
    }
  }
  next()
  if (!isDone) return new Promise((resolve, reject) => { settle = () => { if (failure) reject(failure); else resolve() } })
  if (failure) throw failure
  return null
}

export function isPromise (value: unknown): value is PromiseLike<unknown> {
  return typeof (value as PromiseLike<unknown> | null | undefined)?.then === 'function'
}
