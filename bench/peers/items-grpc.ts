// @grpc/grpc-js: bidirectional streaming. The types of the messages take the place of the validator.

import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js'
import { type Result, type Row, resultOf, rowsService } from '../rows.ts'
import { announce } from './serve.ts'

const server = new Server()
server.addService(rowsService, {
  Check (call: ServerDuplexStream<Row, Result>) {
    call.on('data', (row) => {
      if (call.write(resultOf(row))) return
      call.pause()
      call.once('drain', () => call.resume())
    })
    call.on('end', () => call.end())
  }
})
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error
  announce({ port })
})
