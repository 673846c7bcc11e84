// Go and gorilla/websocket, with messages written by hand.
//
//	client MATH ASKS
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/gorilla/websocket"
)

type object = map[string]interface{}

type client struct {
	socket   *websocket.Conn
	id       float64
	progress []interface{}
}

func tell(name string, value interface{}) {
	line, _ := json.Marshal(object{name: value})
	fmt.Println(string(line))
}

func (c *client) send(message object) error {
	message["jsonrpc"] = "2.0"
	return c.socket.WriteJSON(message)
}

// request returns the result, and answers what the server asks meanwhile.
func (c *client) request(method string, params object) (object, error) {
	c.id++
	if err := c.send(object{"id": c.id, "method": method, "params": params}); err != nil {
		return nil, err
	}
	for {
		c.socket.SetReadDeadline(time.Now().Add(15 * time.Second))
		message := object{}
		if err := c.socket.ReadJSON(&message); err != nil {
			return nil, err
		}
		if message["method"] == "notifications/progress" {
			c.progress = append(c.progress, message["params"].(object)["progress"])
		} else if message["method"] == "elicitation/create" {
			answer := object{"action": "accept", "content": object{"confirm": true}}
			if err := c.send(object{"id": message["id"], "result": answer}); err != nil {
				return nil, err
			}
		} else if message["id"] == c.id {
			if err, failed := message["error"]; failed {
				return nil, fmt.Errorf("%v", err)
			}
			return message["result"].(object), nil
		}
	}
}

func (c *client) call(tool string, arguments object) (object, error) {
	meta := object{"progressToken": tool}
	return c.request("tools/call", object{"name": tool, "arguments": arguments, "_meta": meta})
}

func connect(url string) (*client, error) {
	dialer := websocket.Dialer{Subprotocols: []string{"mcp"}, HandshakeTimeout: 15 * time.Second}
	socket, _, err := dialer.Dial(url, nil)
	if err != nil {
		return nil, err
	}
	c := &client{socket: socket}
	info := object{"name": "go", "version": "1.0.0"}
	capabilities := object{"elicitation": object{}}
	params := object{"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": info}
	if _, err := c.request("initialize", params); err != nil {
		return nil, err
	}
	return c, c.send(object{"method": "notifications/initialized"})
}

func talk() error {
	math, err := connect(os.Args[1])
	if err != nil {
		return err
	}
	tell("initialize", true)
	list, err := math.request("tools/list", object{})
	if err != nil {
		return err
	}
	tell("tools", len(list["tools"].([]interface{})))
	sum, err := math.call("add", object{"a": 5, "b": 3})
	if err != nil {
		return err
	}
	tell("add", sum["structuredContent"].(object)["result"])
	if _, err := math.call("sum", object{"numbers": []int{1, 2, 3}}); err != nil {
		return err
	}
	tell("progress", math.progress)
	asks, err := connect(os.Args[2])
	if err != nil {
		return err
	}
	asked, err := asks.call("ask", object{})
	if err != nil {
		return err
	}
	tell("asked", asked["content"].([]interface{})[0].(object)["text"])
	return nil
}

func main() {
	if err := talk(); err != nil {
		tell("error", err.Error())
		log.Fatal(err)
	}
}
