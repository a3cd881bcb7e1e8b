// The memory that content lies in: which memory a socket reads into, and whether only Node's code sees what passes through the
// streams. Code that was loaded earlier, such as an instrumentation, may have replaced a method of Node's streams. Its method
// sees what is written and may keep it. Then content must not be written from a read buffer, which will be overwritten. This is
// the only file that looks at stack traces.

import { EventEmitter } from 'node:events'
import { Socket } from 'node:net'
import { Duplex, Readable } from 'node:stream'

type Method = (...args: any[]) => unknown

interface Internals extends Record<'write' | '_write' | '_writev' | '_writeGeneric', Method> {
  _handle: { useUserBuffer?: (memory: Buffer) => void, writev?: Method, writeBuffer?: Method } | null
}

// Which memory

/** The symbols under which Node keeps the `onread` option of `net.connect()`; undefined if this Node has none. */
const [BUFFER, CALLBACK] = ['kBuffer', 'kBufferCb'].map((name) =>
  Object.getOwnPropertySymbols(new Socket()).find((symbol) => symbol.description === name))

/**
 * Makes a socket read into `memory` from now on. This cannot be undone. Does nothing if it is not possible on this Node, on this
 * platform or with this stream: then the socket emits 'data' as usual.
 *
 * @param onRead called after each read with its size in bytes and its memory; returns whether to continue reading
 */
export function readInto (socket: Duplex, memory: Buffer, onRead: (size: number, memory: Buffer) => boolean): void {
  const handle = (socket as unknown as Internals)._handle
  // On Windows a read may be pending in its memory for a long time.
  if (typeof handle?.useUserBuffer !== 'function' || !BUFFER || !CALLBACK || process.platform === 'win32') return
  Object.assign(socket, { [CALLBACK]: onRead })
  switchMemory(socket, memory)
}

/**
 * Makes a socket read into other memory, after `readInto`. Each call costs about 50 bytes until the handle closes. The `buffer`
 * function of `onread` would cost nothing. But Node 20 forgets what it returned if something throws in the same tick, and then
 * looks for the bytes in the wrong memory.
 */
export function switchMemory (socket: Duplex, memory: Buffer): void {
  Object.assign(socket, { [BUFFER!]: memory })
  ;(socket as unknown as Internals)._handle?.useUserBuffer!(memory)
}

// Who sees it

/** Used as `this`: throws at the first access to a property. */
const untouchable = new Proxy({}, { get () { throw new Error('touched') } })

/**
 * Whether a method is Node's. It is called with a `this` that throws. Only Node's functions may be on the call stack between
 * this call and the first access to `this`. A wrapper would be on that stack too, or would access `this` itself or not at all.
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
  // The first call site is the trap of the proxy. The last one before this function is the method.
  const between = sites.slice(1, sites.findIndex((site) => site.getFunctionName() === isFromNode.name))
  return between.length > 0 && between.every((site) => String(site.getFileName()).startsWith('node:'))
}

const BYTES = Buffer.alloc(1)
const { emit, on } = EventEmitter.prototype
const { pipe, push } = Readable.prototype
const { write } = Duplex.prototype
const { _write, _writev, _writeGeneric } = Socket.prototype as unknown as Record<'_write' | '_writev' | '_writeGeneric', Method>

/** Whether none of these methods had been replaced when this file was loaded. */
const wereIntact = isFromNode(emit, 'data', BYTES) && isFromNode(on, 'data', Boolean) && isFromNode(Readable.prototype.on, 'data', Boolean) &&
  isFromNode(pipe, new Duplex()) && isFromNode(push, BYTES) && isFromNode(write, BYTES, 'buffer', Boolean) &&
  isFromNode(_write, BYTES, 'buffer', Boolean) && isFromNode(_writev, [], Boolean) && isFromNode(_writeGeneric, false, BYTES, 'buffer', Boolean)

/** Whether the `pipe` that `source` inherits is Node's. Then the 'data' listener that it adds is Node's too. */
export function pipesByNode (source: Readable): boolean {
  return wereIntact && Object.getPrototypeOf(Object.getPrototypeOf(source)).pipe === pipe
}

/** Whether only Node's methods see what is written to a socket. */
export function writesByNode (socket: Socket): boolean {
  const methods = socket as unknown as Internals
  return wereIntact && methods.write === write && methods._write === _write && methods._writev === _writev &&
    methods._writeGeneric === _writeGeneric && isNative('writev', methods._handle?.writev) && isNative('writeBuffer', methods._handle?.writeBuffer)
}

/** Methods of handles that are known to be native, by name. TCP connections and pipes share them. */
const nativeMethods = new Map<string, Method>()

function isNative (name: string, method: Method | undefined): boolean {
  if (method === undefined || nativeMethods.get(name) === method) return method !== undefined
  // The source text of a bound function, or of a Proxy, has no name.
  if (Function.prototype.toString.call(method) !== `function ${name}() { [native code] }`) return false
  nativeMethods.set(name, method)
  return true
}
