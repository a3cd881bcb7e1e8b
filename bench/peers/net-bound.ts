// What no server in Node can be faster than: a bare socket that makes the same system calls as an HTTP server, reads and writes of
// the same bytes, and looks at the head of a request only. The echo of a chunked body is that body.

import { Socket, createServer } from 'node:net'
import { serve } from './serve.ts'

const HEAD = Buffer.from('HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n')
/** The first byte of `POST`. No body of the benchmark has it. */
const POST = 0x50
const READ_SIZE = 64 * 1024

/** All connections read into the same memory. Before it is room for the head of a response. */
const memory = Buffer.allocUnsafeSlow(HEAD.length + READ_SIZE)
const input = memory.subarray(HEAD.length)

/** Replaces the head of the request by that of the response. @returns where in `memory` the response begins */
function replaceHead (length: number): number {
  const bodyAt = input.subarray(0, length).indexOf('\r\n\r\n') + 4
  HEAD.copy(memory, bodyAt)
  return bodyAt
}

function accept (handle: unknown): void {
  let isWaiting = false
  const socket: Socket = new Socket({
    handle,
    onread: {
      buffer: input,
      callback (length: number): boolean {
        const from = input[0] === POST ? replaceHead(length) : HEAD.length
        socket.write(memory.subarray(from, HEAD.length + length), onWritten)
        // The next read would overwrite what could not be written at once.
        isWaiting = socket.writableLength > 0
        return !isWaiting
      }
    }
  } as object)
  const onWritten = (): void => {
    if (isWaiting && socket.writableLength === 0) socket.resume()
  }
  socket.setNoDelay()
  socket.on('error', () => {})
}

const server = createServer()
server.on('listening', () => {
  // Node has `onread` for clients only, so the sockets are made here.
  const { _handle: listener } = server as unknown as { _handle: { onconnection: (status: number, handle: unknown) => void } }
  listener.onconnection = (status, handle) => { if (status === 0) accept(handle) }
})
serve(server)
