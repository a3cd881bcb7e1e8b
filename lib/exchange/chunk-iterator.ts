// The chunks of a request body, for a `for await` loop. Node's own iterator costs a short exchange as much as Fastify's routing:
// it listens for six events, and waits for 'end'. This one listens only from its first wait on. While it waits, the stream may give
// it the next chunk directly: what passes the buffer of the stream and its events costs a message as much as the loop itself.

import { type Readable, finished } from 'node:stream'
import { offReadable, shortLived } from '../node/streams.ts'

/** The stream of an exchange, as a loop over its chunks sees it. */
export interface ChunkSource extends Readable {
  /** Nothing more is pushed: what is buffered is the rest. */
  readonly requestHasEnded: boolean
  /** A read has taken the last chunk, or has found the end: 'end' follows without another read, unless the reader puts something back. */
  endWasRead: boolean
  /** The number of loops that read. */
  loops: number
  /** The loop that waits for the next chunk. */
  waitingLoop: ChunkIterator | null
  /** The number of those that leave, but whose last wait lasts until something comes. */
  leavingLoops: number
  /** Called when a loop has left. */
  onReaderChange (): void
}

type Chunk = Buffer | string
type Result = IteratorResult<Chunk, undefined>

const RESOLVED = Promise.resolve()

const DONE: Result = { value: undefined, done: true }

/** As the iterator of `stream.iterator({ destroyOnReturn: false })`. */
export class ChunkIterator implements AsyncIterableIterator<Chunk> {
  private readonly stream: ChunkSource
  private state: 'new' | 'reading' | 'over' = 'new'
  private isLeaving = false // while it waits
  private waiting: Promise<Result> | null = null
  private wake: (() => void) | null = null // listens from the first wait on
  private settle: ((result: Result | Promise<Result>) => void) | null = null // ends the wait

  constructor (stream: ChunkSource) {
    this.stream = stream
  }

  [Symbol.asyncIterator] (): this {
    return this
  }

  next (): Promise<Result> {
    const { waiting } = this
    if (waiting !== null) return this.behind(waiting, () => this.next())
    if (this.state === 'over') return Promise.resolve(DONE)
    if (this.state === 'new') {
      this.state = 'reading'
      this.stream.loops++
    }
    return this.take() ?? this.wait()
  }

  return (): Promise<Result> {
    const { waiting, stream } = this
    if (waiting !== null) {
      if (stream.waitingLoop === this) stream.waitingLoop = null
      if (!this.isLeaving) stream.leavingLoops++
      this.isLeaving = true
      return this.behind(waiting, () => this.return())
    }
    this.leave()
    return Promise.resolve(DONE)
  }

  /** Calls that do not wait for each other have their turns, as with a generator. */
  private behind (waiting: Promise<Result>, call: () => Promise<Result>): Promise<Result> {
    return waiting.then(call, call)
  }

  /** @returns the next chunk, the end, or the failure; null if none of them is there yet */
  private take (): Promise<Result> | null {
    try {
      return this.read()
    } catch (error) { // of a listener for 'data'
      this.leave()
      return Promise.reject(error)
    }
  }

  private read (): Promise<Result> | null {
    const { stream } = this
    const isOver = stream.destroyed || (stream.endWasRead && stream.readableLength === 0)
    const chunk: Chunk | null = isOver ? null : stream.read()
    stream.endWasRead = stream.requestHasEnded && stream.readableLength === 0
    if (chunk !== null) return Promise.resolve({ value: chunk, done: false })
    // 'end' is emitted in the next tick. What the handler writes behind the loop is sent with what it has written in it.
    if (!stream.endWasRead && !stream.destroyed) return null
    this.leave()
    return stream.destroyed ? endOf(stream) : Promise.resolve(DONE)
  }

  private wait (): Promise<Result> {
    if (this.wake === null) {
      this.wake = shortLived(() => { this.onChange() })
      this.stream.on('readable', this.wake).on('close', this.wake)
    }
    this.waiting = new Promise((resolve) => { this.settle = resolve })
    this.stream.waitingLoop = this
    return this.waiting
  }

  /** Takes a chunk that the stream has not buffered. */
  receive (chunk: Buffer): void {
    this.endWait({ value: chunk, done: false })
  }

  /** In a microtask: if the last chunk were read in the tick of 'readable', 'end' would come before the loop has that chunk. */
  private onChange (): void {
    RESOLVED.then(() => { this.onChanged() })
  }

  private onChanged (): void {
    const result = this.settle === null ? null : this.take()
    if (result !== null) this.endWait(result)
  }

  private endWait (result: Result | Promise<Result>): void {
    const { settle } = this
    this.waiting = this.settle = this.stream.waitingLoop = null
    settle!(result)
  }

  private leave (): void {
    const { stream, wake } = this
    if (wake !== null) {
      offReadable(stream, wake)
      stream.off('close', wake)
    }
    if (this.state === 'reading') {
      stream.loops--
      if (this.isLeaving) stream.leavingLoops--
      stream.onReaderChange()
    }
    this.state = 'over'
  }
}

/** How a destroyed stream has ended: with an error, unless its end was read before. */
function endOf (stream: Readable): Promise<Result> {
  return new Promise((resolve, reject) => {
    finished(stream, { writable: false }, (error) => {
      if (error) reject(error)
      else resolve(DONE)
    })
  })
}
