// Are Node's stream methods those that Node made? Code that runs before us (an instrumentation, a debugging aid) may have
// replaced one. It sees what is written and may keep it, so content must not be relayed in a read buffer then. The only file
// that looks at stack traces.

import { EventEmitter } from 'node:events'
import { Socket } from 'node:net'
import { Duplex, Readable } from 'node:stream'

type Method = (...args: any[]) => unknown

/** A `this` that throws when it is first touched. */
const untouchable = new Proxy({}, { get () { throw new Error('touched') } })

/**
 * Whether a method is Node's: only Node's functions are on the call stack between us and the first touch of its `this`. A
 * wrapper is on that stack too, or touches `this` first, or never does.
 */
function isFromNode (method: unknown, ...args: unknown[]): boolean {
  if (typeof method !== 'function') return false
  const { prepareStackTrace, stackTraceLimit } = Error
  Error.prepareStackTrace = (_error, sites) => sites
  Error.stackTraceLimit = Infinity
  let sites: NodeJS.CallSite[] = []
  try {
    method.apply(untouchable, args)
  } catch (error) {
    sites = (error as { stack: unknown }).stack as NodeJS.CallSite[]
  }
  Error.prepareStackTrace = prepareStackTrace
  Error.stackTraceLimit = stackTraceLimit
  // The first is the trap of the proxy. The last before us is the method.
  const between = sites.slice(1, sites.findIndex((site) => site.getFunctionName() === isFromNode.name))
  return between.length > 0 && between.every((site) => String(site.getFileName()).startsWith('node:'))
}

const BYTES = Buffer.alloc(1)
const { emit, on } = EventEmitter.prototype
const { pipe, push } = Readable.prototype
const { write } = Duplex.prototype
const { _write, _writev, _writeGeneric } = Socket.prototype as unknown as Record<'_write' | '_writev' | '_writeGeneric', Method>

/** Whether nobody had replaced one of these before this file was loaded. */
const wereIntact = isFromNode(emit, 'data', BYTES) && isFromNode(on, 'data', Boolean) && isFromNode(Readable.prototype.on, 'data', Boolean) &&
  isFromNode(pipe, new Duplex()) && isFromNode(push, BYTES) && isFromNode(write, BYTES, 'buffer', Boolean) &&
  isFromNode(_write, BYTES, 'buffer', Boolean) && isFromNode(_writev, [], Boolean) && isFromNode(_writeGeneric, false, BYTES, 'buffer', Boolean)

/** Whether `pipe` is Node's. Then the 'data' listener that it adds is Node's too. */
export function pipesByNode (source: Readable): boolean {
  return wereIntact && Object.getPrototypeOf(Object.getPrototypeOf(source)).pipe === pipe
}

interface Internals extends Record<'write' | '_write' | '_writev' | '_writeGeneric', Method> {
  _handle: { writev?: Method, writeBuffer?: Method } | null
}

/** Whether nobody can see what is written to a socket. */
export function writesByNode (socket: Socket): boolean {
  const one = socket as unknown as Internals
  return wereIntact && one.write === write && one._write === _write && one._writev === _writev && one._writeGeneric === _writeGeneric &&
    isNative('writev', one._handle?.writev) && isNative('writeBuffer', one._handle?.writeBuffer)
}

/** Methods of handles that were found to be native, by name. TCP connections and pipes share them. */
const natives = new Map<string, Method>()

function isNative (name: string, method: Method | undefined): boolean {
  if (method === undefined || natives.get(name) === method) return method !== undefined
  // A bound function and a Proxy are shown without a name.
  if (Function.prototype.toString.call(method) !== `function ${name}() { [native code] }`) return false
  natives.set(name, method)
  return true
}
